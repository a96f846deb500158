"""What a notebook shows of an object: HTML, small pictures and progress. It knows nothing of packs."""
