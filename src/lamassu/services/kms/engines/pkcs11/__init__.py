"""HSMs by PKCS #11."""
