"""One vertical slice per service; a slice knows another only through its `contract.py`."""
