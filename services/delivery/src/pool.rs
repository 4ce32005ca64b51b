pub(crate) struct Pool;
