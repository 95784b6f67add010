"""What becomes of one tensor: the plan, the methods, the sum rounded once, the report."""
