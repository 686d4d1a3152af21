"""What other slices may know of alerts: nothing calls it, it listens."""
