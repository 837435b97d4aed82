"""VeLO's update in tiles of bounded memory."""
