"""What people see of the records."""
