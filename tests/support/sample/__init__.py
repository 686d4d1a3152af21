"""A service that exists for tests of the platform only."""
