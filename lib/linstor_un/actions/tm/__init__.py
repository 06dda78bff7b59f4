"""The transfer actions."""
