//! A whole server in one directory: the root database, then every project that it knows.
