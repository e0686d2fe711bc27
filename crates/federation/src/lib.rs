//! Cities together: identities, signed messages, peers, questions that travel.
