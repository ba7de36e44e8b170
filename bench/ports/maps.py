"""Maps from the features of a new backbone to those of an old one: `Procrustes`, `Linear`, and `Map`, what both are.

fitted = Procrustes().fit(old_features, new_features)     # (N, Do), (N, Dn): arrays or tensors, rows matched
fitted.transform(new_features)                            # (B, Dn) -> (B, Do)
fitted.score_                                             # R² on anchors left out
fitted.save("a-to-b.safetensors"); Map.load("a-to-b.safetensors")
"""

from carryover.bench.ports.map_base import Map as Map
from carryover.bench.ports.map_linear import Linear as Linear
from carryover.bench.ports.map_procrustes import Procrustes as Procrustes
