"""Released weights <-> our names, one file per release; what all of them need: where a release lies and how its files are read."""
