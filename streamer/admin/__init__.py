"""What whoever operates it needs now and then."""
