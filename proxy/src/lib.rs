//! Services and EndpointSlices to nftables
