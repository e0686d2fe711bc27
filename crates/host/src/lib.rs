//! The world outside: clock, randomness, disk; real, and seeded for simulation.
