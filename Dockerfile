# raymia on Ray's own image, for the machines of a cluster; docs/clusters.md says more.
#   docker build --build-arg DEVICE=cpu --tag registry.example/raymia:0.1.0-cpu .
#   docker build --build-arg DEVICE=gpu --tag registry.example/raymia:0.1.0-gpu .

ARG DEVICE=gpu
FROM rayproject/ray:2.60.0-py311-${DEVICE}

# Where torch's CPU builds are, for an image without GPUs; pip's default on Linux is the CUDA build.
ARG PIP_EXTRA_INDEX_URL

# All that raymia needs, in the versions its tests passed with. A change of raymia's own code leaves
# this layer as it is, so machines that have it download little.
RUN --mount=type=bind,source=requirements/all.txt,target=/build/all.txt \
    --mount=type=bind,source=jobs/constraints.txt,target=/build/constraints.txt \
    pip install --no-cache-dir --constraint /build/constraints.txt --requirement /build/all.txt

# The build writes beside the sources, so it is given a copy, in the home of the image's user: that
# user is not root.
RUN --mount=type=bind,target=/build/context \
    cp -r /build/context "$HOME/raymia" && \
    pip install --no-cache-dir --no-deps "$HOME/raymia" && \
    rm -r "$HOME/raymia"
