//! Serves and calls igloo's traits over gRPC, on unix sockets and loopback TCP.
