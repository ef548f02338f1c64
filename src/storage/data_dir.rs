//! Small checksummed files of the data directory: `identity` and `peers`.
