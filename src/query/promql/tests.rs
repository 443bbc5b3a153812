//! What queries give for samples that are known.
