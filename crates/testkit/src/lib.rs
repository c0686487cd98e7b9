//! Test only: a server for a test, fake providers on the real wires.
