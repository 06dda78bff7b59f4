"""What ./dev does in a checkout: it sets up what it needs, then runs the demo, the tests, the linters, the sandbox."""
