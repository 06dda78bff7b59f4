"""How far the sandbox answers as the real controller did whose exchanges were recorded: `./dev conformance`."""
