pub(crate) struct Resolver;
