"""Which images of packs are alike: identical, or nearly so."""
