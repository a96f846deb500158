"""What there is to pack: folders, tables, packs and a user's readers become `Sources`. It knows settings, not plans."""
