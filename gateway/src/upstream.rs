//! Other servers of the protocol, as arms of routes.
