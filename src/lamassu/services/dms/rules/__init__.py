"""What enrolment decides, as values in and a verdict out."""
