//! The controllers, as clients of the API
