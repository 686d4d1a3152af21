"""What the CA may do and what its certificates say: values in, verdict out."""
