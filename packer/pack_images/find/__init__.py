"""Find the images to pack, in folders, tables, packs and by a user's reader. Depends on settings, not on plans."""
