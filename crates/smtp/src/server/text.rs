//! Text of a message on its way in.
