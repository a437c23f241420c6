//! The state folder: numbered revisions of the routes, and who changed what.
