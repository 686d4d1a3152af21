"""Lamassu: an IoT public-key-infrastructure platform."""

__version__ = "0.1.0"
