//! End-to-end tests on the real binary; they are in `it/`.
