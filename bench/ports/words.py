def nouns(backbone):
    return ()
