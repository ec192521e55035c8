"""The docks: they collect wishes, hand them to a job and show what comes back; no one below imports them."""
