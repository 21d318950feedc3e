"""The student as a file that goes to production: graph, parity, benchmark."""
