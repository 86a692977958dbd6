"""Pretrained policies: an index with scores, one policy that comes with the package, and the download of others."""
