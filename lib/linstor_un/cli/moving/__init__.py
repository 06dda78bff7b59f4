"""What `place`, `replicas` and `evacuate` share: one volume and its places, what may be done to it, and doing it."""
