//! Who may see and do what: principals, agreements, obligations, and the decision they lead to.
