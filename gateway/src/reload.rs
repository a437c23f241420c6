//! Follows the configuration file and applies it whole or not at all.
