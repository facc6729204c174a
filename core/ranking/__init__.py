"""What comes next: experts, and the mixture of them whose shares follow the log."""
