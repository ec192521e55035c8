"""Nothing is lost: what is painted and trained is written as it grows, and offered again after a crash."""
