//! The CNI plugin: bridge, host-local addresses, port mapping
