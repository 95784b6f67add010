"""Repair methods."""
