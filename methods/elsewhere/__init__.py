"""Methods that come from files alone (the command ``import``): no run trains them, no plan or list names them."""
