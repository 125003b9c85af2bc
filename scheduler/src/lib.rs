//! The scheduler, as a client of the API
