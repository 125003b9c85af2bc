//! The API server: HTTP, verbs, watch, authentication, authorization, admission
