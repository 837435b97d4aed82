"""VeLO's weights: file formats, download, and the choice of a file."""
