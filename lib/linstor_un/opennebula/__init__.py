"""Everything OpenNebula: what its drivers pass to a script, its model, its life-cycle states, and asking oned."""
